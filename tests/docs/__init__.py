"""What the documentation shows is what happens: its routes, its calls, its links and its site."""
