"""Preference and demonstration data: any common file or hub data set, as rows that training reads."""
