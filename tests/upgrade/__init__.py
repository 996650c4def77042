"""Workers of the release before, beside those of the working tree."""
