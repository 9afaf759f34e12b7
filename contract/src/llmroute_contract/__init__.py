"""The contract between the operator and the gateway: LLMRoute in, compiled configuration out. Pure: no IO, no
clock."""
