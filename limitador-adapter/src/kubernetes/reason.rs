//! The reasons of conditions. Each reason is declared here once, for the status and for
//! `docs/reference/status.md`.

macro_rules! reasons {
    ($($reason:ident $about:literal $remedy:literal;)*) => {
        /// The reason of a condition.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ConditionReason {
            $(#[doc = $about] $reason,)*
        }

        impl ConditionReason {
            /// All of them, in the order of the reference.
            pub const ALL: &[Self] = &[$(Self::$reason,)*];

            /// The name in the status.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$reason => stringify!($reason),)*
                }
            }

            /// The meaning of the reason.
            pub fn about(self) -> &'static str {
                match self {
                    $(Self::$reason => $about,)*
                }
            }

            /// What an operator should do about it. Empty if nothing is wrong.
            pub fn remedy(self) -> &'static str {
                match self {
                    $(Self::$reason => $remedy,)*
                }
            }
        }
    };
}

reasons! {
    Accepted
        "The policy is valid and its target exists."
        "";
    Invalid
        "The policy has errors. The message lists every one with its path. The last valid version stays in force, if there was one."
        "Correct the errors, with the help of `limitador-adapter check`.";
    TargetNotFound
        "The Gateway, route, listener or rule that `targetRef` names does not exist in the policy's namespace."
        "Correct `targetRef`, or create the target.";
    Conflicted
        "A policy of `weir.dev` has the same namespace and name as this policy of `kuadrant.io`, and is in force instead."
        "Rename or delete one of the two.";
    Enforced
        "The filters of all Gateways that the policy applies to have it in their plan. The message lists the doubts, if there are any."
        "";
    NeverMatches
        "No request can reach the target: no route is attached to the Gateway, or listener and route have no hostname in common."
        "Attach a route, or correct the hostnames.";
    NoFilter
        "No filter of this Gateway has asked for its plan in the last 45 seconds."
        "Install the filter for this Gateway, or correct `gateway` in the filter's configuration. The message lists Gateways that filters ask for and that do not exist.";
    NoBodyAccess
        "The policy uses facts of request bodies, and a filter of the Gateway does not read them. The filter's other policies stay in force."
        "Set `requestBody: {access: Buffer}` in the filter's configuration.";
    Stale
        "The latest generation has errors, so an earlier one is in force."
        "Correct the errors that `Accepted` lists.";
    Overridden
        "On every route, other policies replace this one (`defaults`, `overrides`, or a policy of the same name). The message names them."
        "Remove the other policy, or accept that it takes precedence.";
}
