"""`llmroute status` (and `kubectl llmroute status`): the gateways of a cluster as their pods tell it, for a person.

It needs nothing but kubectl and a person's own rights, and it only reads. `kubectl.py` asks, `gather.py` puts together
what is told, `show.py` prints it.
"""
