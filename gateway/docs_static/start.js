// Swagger UI over the gateway's own OpenAPI document; nothing is fetched from elsewhere.
window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#ui",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0, // the schemas' list stays closed: each operation shows its own
});
