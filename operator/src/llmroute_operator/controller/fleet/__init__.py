"""Which pods serve which gateway, and how far they are: watched, asked, touched after a change, told in the routes.

    watch_pods.py ─► roster.py ─► ask.py (GET /status of a sidecar) ─► roster.py ─► facts ─► conditions.py of each route
                         └─► requests.py (touch: an annotation, so that kubelet syncs the pod at once)

`roster.py`, `pod.py`, `report.py`, `pace.py`, `conditions.py`, `shares.py` and `without.py` decide, without IO;
`fleet.py` puts it together.
"""
