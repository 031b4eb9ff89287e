"""What answers in place of ninja: the program itself, its server, and rehearsals."""
