"""What scores say of episodes: pure arithmetic."""
