// Reports that a page was seen, or the form opened. Nothing that tells visitors apart is sent or kept.

export function reportVisit(step, slug, source) {
  const query = new URLSearchParams({ step, ...source });
  query.delete("referrer");
  navigator.sendBeacon?.(`/d/${encodeURIComponent(slug)}/visits?${query}`);
}
