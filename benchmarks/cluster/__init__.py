"""Real processes, namespaces, registries and images, for the demo, the fan-out and the tests. No service imports it."""
