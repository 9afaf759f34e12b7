"""Certificates of the injector's webhook, made and renewed by the controller.

`rotation.py` decides and opens with the theory; `certificate.py` makes and reads certificates; `objects.py` is how they
stand in the cluster; `keeper.py` looks, has it decided, and writes. Serving them is the injector's.
"""
