"""The HTTP surface: routes, authentication, and the wiring of all objects."""
