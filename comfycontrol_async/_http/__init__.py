"""One request: from a `Request` value to a model, through limiter, transport and retries."""
