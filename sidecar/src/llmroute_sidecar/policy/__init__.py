"""The rules of the request path, sans-IO: plain synchronous code over values and a clock that the caller passes in."""
