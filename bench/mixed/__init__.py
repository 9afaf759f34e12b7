"""`python -m bench.mixed`: an hour of a pod's traffic in a few minutes, and whether the gateway kept account of it.

Several clients ask for chats, messages, embeddings, responses and transcriptions, plain and streamed, faster than their
limits allow; some leave before the first token, some in the middle of an answer. One provider is steady, one has moods
(errors, throttling, silence, hanging up, cutting its answers short), one is never there. The shared state, a real
Valkey, is killed or stopped every few seconds. The configuration is laid anew each second as kubelet lays it, each time
with other URLs, timeouts and limits. Afterwards the books are compared:

- each request had one answer, that looked whole only if it was, and one log line that says the same;
- the metrics are what the clients and the log counted;
- the steady provider lost no connection but those whose clients had left: no reload closed one that was in use;
- nothing is in flight, no socket and no task is left, no fault was logged, and memory is as flat as it was after the
  warm-up.

Where things are: `customers` (who asks, and what they heard), `weather` (the providers), `configuration` (what is laid
each second), `state` (the shared state's fate), `accounts` (the comparison), `run` (all of it together). A short run is
a test (tests/sidecar/test_mixed_traffic.py).
"""
