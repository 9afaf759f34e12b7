"""Where requests come in: HTTP/1.1 connections, and what the data port and the admin port answer."""
