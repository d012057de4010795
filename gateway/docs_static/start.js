// Swagger UI over this door's own description; nothing is fetched from elsewhere.
window.ui = SwaggerUIBundle({ url: "/openapi.json", dom_id: "#ui", deepLinking: true, docExpansion: "list" });
