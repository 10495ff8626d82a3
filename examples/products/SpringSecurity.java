@Bean
SecurityFilterChain security(HttpSecurity http, ClientRegistrationRepository clients) throws Exception {
    var resolver = new DefaultOAuth2AuthorizationRequestResolver(clients, "/oauth2/authorization");
    resolver.setAuthorizationRequestCustomizer(OAuth2AuthorizationRequestCustomizers.withPkce());
    return http.authorizeHttpRequests(all -> all.anyRequest().access((user, request) -> new AuthorizationDecision(
            user.get() instanceof OAuth2AuthenticationToken login
                && login.getPrincipal().<Object>getAttribute("roles") instanceof List<?> roles && roles.contains("staff"))))
        .oauth2Login(login -> login.authorizationEndpoint(there -> there.authorizationRequestResolver(resolver)))
        .build();
}
