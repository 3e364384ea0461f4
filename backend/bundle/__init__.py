"""Saving what was compiled as a bundle: programs, guards and the glue between them, as data."""
