"""The pages, and the program that writes those that are made from the code."""
