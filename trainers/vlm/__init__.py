"""The small vision-language model of our own: its recipe, its rendered lessons, its training, its scores."""
