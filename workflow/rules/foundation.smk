"""The miniature's foundation models, trained again; they ship with the repository."""
