//! Dialogues with the machine: what clients say, what passes, what they hear.

mod dialogue;
mod joins;
mod offsets;
mod ownership;
mod simulation;
mod syncs;
