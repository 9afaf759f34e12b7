"""What brings LLMRoutes into pods: the controller, and later the injector."""
