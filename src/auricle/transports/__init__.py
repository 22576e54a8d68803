"""Ways to carry events to a client and back. A transport knows neither session nor connection."""
