//! No source and no facts bring an evaluation down, or keep it long.
