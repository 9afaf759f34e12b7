"""The worker of one `litellm://` upstream: a program of its own, run by an interpreter whose environment has litellm.

Nothing here is imported by the gateway, and nothing of the gateway is imported here (import-linter holds both):
`upstream/worker.py` runs this folder as a process and speaks to it over socket pairs. What is used beside the standard
library (litellm, aiohttp) is in `requirements/litellm.txt`.

    main.py      the process: its end, its log, the channel from the gateway, the HTTP server
    mending.py   what is changed in litellm itself
    calls.py     the endpoints: one call each to litellm
    request.py   what a request may say, as arguments of litellm's functions; pure
    answer.py    what litellm gave, as OpenAI's JSON and events; pure
    errors.py    what litellm raised, as a status and an OpenAI-shaped error; pure
"""
