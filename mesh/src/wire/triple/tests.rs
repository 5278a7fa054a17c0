//! Golden bytes of what members of a slot say.
