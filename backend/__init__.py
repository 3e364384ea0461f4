"""The Dynamo backend: options, partitioning, caching, reports."""
