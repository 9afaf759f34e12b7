"""What the pods of a gateway share, over a Valkey or Redis server.

Owns the way there: one connection (`connection.py`), its life with reconnects, bounded waits and what is said of it
(`link.py`), and on it the counting of limits (`counting.py`) and the news of breakers (`breakers.py`); `state.py` puts
them together. What the server is asked and what its answers mean is `policy.limits.shared`'s; what becomes of a call
whose limits cannot be counted is the pipeline's. Imported only where a shared state is configured.
"""
