"""Fitting of engines that learn something before they draw; training-free engines have no job here."""
