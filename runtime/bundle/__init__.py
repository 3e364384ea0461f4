"""Saved bundles: read, checked and run. Imports no torch."""
