"""Published training configurations of other tools, translated into recipes."""
