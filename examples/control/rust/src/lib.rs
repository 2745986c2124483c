//! A client whose tests say when its server goes away.
