"""What all tests of the sidecar share."""

from hypothesis import settings

# How long an example takes says how busy the machine is, and nothing else: no test may fail for it.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
