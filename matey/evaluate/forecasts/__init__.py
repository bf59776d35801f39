"""Forecasts as such, with truth or without: frames one by one, files that other programs open, and series at single cells."""
