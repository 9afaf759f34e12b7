"""A request's whole way through the gateway, in the order it happens. `serve.py` is where to start reading."""
