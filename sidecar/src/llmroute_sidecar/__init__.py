"""The gateway that runs in each pod, and the `llmroute` command."""
