"""One thin file per stage; the only code that touches a workspace."""
