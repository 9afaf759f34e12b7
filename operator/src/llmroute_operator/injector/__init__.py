"""Gives pods that ask for it their gateway, as a mutating admission webhook.

What is put into a pod is decided without IO: `inject.py` is the one place where a pod's whole way is read. `run.py` is
where the process is put together.
"""
