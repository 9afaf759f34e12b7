"""Where requests come in: the data port's HTTP/1.1 connections and endpoints, and the admin port's FastAPI app."""
