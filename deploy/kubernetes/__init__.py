"""Manifests for Kubernetes, to be rendered by kustomize."""
