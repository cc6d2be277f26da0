"""The bundled trainer: a mixture-of-experts vision-language-action model, trained from a mix in two stages."""
