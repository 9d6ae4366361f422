"""What lets a lost host come back: one sealed file of configuration, people, proof. Never an hour key."""
