/** The control plane's own identity: service account `control` in namespace `pillion`. */
export const CONTROL_IDENTITY_NAMESPACE = "pillion";
export const CONTROL_IDENTITY_ACCOUNT = "control";
