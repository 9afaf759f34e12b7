"""What the gateway tells: metrics and log lines. Never a key, never a prompt."""
