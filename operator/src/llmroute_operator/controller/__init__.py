"""Watches LLMRoutes, compiles each gateway's into its ConfigMap, and tells in their status what came of it.

`run.py` is where its parts are put together.
"""
