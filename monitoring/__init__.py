"""What a platform team sees of llmroute: dashboards, rules and how Prometheus finds what it scrapes.

Owns the source of manifests/monitoring/ and docs/alerts.md; `make generate` writes them. The metrics themselves are the
gateway's (docs/metrics.md) and the controller's (both in docs/). Development only: no part imports it.
"""
