"""A VLM that another machine serves: asked over HTTP, one request per prefix and instruction."""
