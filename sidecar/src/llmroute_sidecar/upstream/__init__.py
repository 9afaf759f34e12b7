"""Calling upstreams: the exchange with one (HTTP/1.1 or mock), and the pool of connections to it. IO lives here."""
