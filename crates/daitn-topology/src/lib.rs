//! Pure planning: matching, feasibility, cost, routes.
