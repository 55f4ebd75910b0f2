"""Who is out there, and how to reach them."""
